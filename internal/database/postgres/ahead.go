//go:build linux

package postgres

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstOfUsers is the number from which on databases are those of users (FirstNormalObjectId).
const firstOfUsers = 16384

// firstRead are the catalogs and indexes that the first connection to a database reads, page by page and each page when it is
// needed: their numbers are the same in all versions. Those of a table that was written anew have
// another one, and are not read ahead.
var firstRead = []string{
	"pg_filenode.map", "PG_VERSION",
	"1247", "1249", "1255", "1259", // pg_type, pg_attribute, pg_proc, pg_class
	"1260", "1262", "2676", "2677", "2671", "2672", "2965", // pg_authid, pg_database, their indexes, pg_db_role_setting's
	"2601", "2603", "2610", "2616", // pg_am, pg_amproc, pg_index, pg_opclass
	"2655", "2659", "2662", "2663", "2678", "2679", "2687", "2690", "2703", // and indexes
}

// readAhead has the kernel read what the first connection is going to wait for. The files of a copy are others
// to the kernel than those that they share their blocks with, so that none of them is in its memory.
func (c *cluster) readAhead() {
	folders := []string{filepath.Join(c.data, "global")}
	entries, _ := os.ReadDir(filepath.Join(c.data, "base")) // it is only about time
	for _, e := range entries {
		if oid, err := strconv.Atoi(e.Name()); err == nil && oid >= firstOfUsers {
			folders = append(folders, filepath.Join(c.data, "base", e.Name()))
		}
	}
	for _, folder := range folders {
		for _, name := range firstRead {
			f, err := os.OpenFile(filepath.Join(folder, name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
			if err != nil {
				continue
			}
			_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_WILLNEED)
			_ = f.Close() // nothing was written
		}
	}
}
