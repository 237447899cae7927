// Package shop holds the sample project: a frontend, a backend in two versions, a
// worker and a smoke test. Where there is PostgreSQL it has a database, too. It is written out as a git work tree by the demo.
package shop

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A folder with a go.mod could not be embedded: it has another name here.
//
//go:embed compose.yaml go.mod.txt frontend backend worker smoke version-2 with-database
var files embed.FS

// Write writes the shop into dir: version 1, or with the changes that make version
// 2 of the backend.
func Write(dir string, version int) error {
	if err := copyTree(files, ".", dir); err != nil {
		return err
	}
	if version == 2 {
		return copyTree(files, "version-2", dir)
	}
	return nil
}

// WriteDatabase makes the shop in dir keep its orders in a database, which is a copy of the
// template "shop".
func WriteDatabase(dir string) error { return copyTree(files, "with-database", dir) }

// Orders is the SQL that the template of the shop's databases is made with.
func Orders() ([]byte, error) { return files.ReadFile("with-database/db/orders.sql") }

// copyTree writes the files below root in from to dir, without the ending ".txt" that
// keeps some of them from being compiled here.
func copyTree(from fs.FS, root, dir string) error {
	return fs.WalkDir(from, root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && root == "." && (path == "version-2" || path == "with-database"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		content, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, strings.TrimSuffix(relative, ".txt"))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}
