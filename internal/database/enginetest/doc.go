// Package enginetest is the suite of what a database.Engine has to do.
package enginetest
