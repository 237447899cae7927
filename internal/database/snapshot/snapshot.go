// Package snapshot copies folders so that the copy shares its blocks with the original until it is
// written to. How depends on the file system: see the drivers.
package snapshot

import "context"

// Cloner keeps folders side by side below one root. Names are random ids of ours, never a user's.
// A crash in the middle of any method leaves something that Delete takes away.
type Cloner interface {
	// Name is the driver's: btrfs, reflink, overlay or copy.
	Name() string
	// Create makes an empty folder that can be filled and cloned, and gives its path.
	Create(ctx context.Context, name string) (path string, err error)
	// Freeze writes everything of a folder to the device, so that the first clone need not, and
	// makes it read-only where the driver can.
	Freeze(ctx context.Context, name string) error
	// Clone makes a writable copy, and gives its path. It takes no time that grows with the size of the
	// files, but for the drivers that say so. Only btrfs takes all files as of one moment: with the others,
	// nothing should write to the folder meanwhile. An error leaves nothing.
	Clone(ctx context.Context, from, name string) (path string, err error)
	// Attach gives the path of a folder that is there, after a restart of the host too: what has to be
	// mounted is mounted.
	Attach(ctx context.Context, name string) (path string, err error)
	// Delete takes a folder away, whatever state it is in. Unknown names are no error. Clones go on
	// without what they were cloned from; where they need it, it takes its room until they are gone.
	Delete(ctx context.Context, name string) error
	// List gives the names of all folders.
	List(ctx context.Context) ([]string, error)
	// OwnBytes gives what a folder uses of the device and shares with no other; ok is false where that
	// cannot be told. It may take long.
	OwnBytes(ctx context.Context, name string) (bytes int64, ok bool, err error)
	// Close lets go of the root without taking anything away.
	Close() error
}
