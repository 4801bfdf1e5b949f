// Package vfs is the contract for files that the host shows to a guest, and its providers.
//
// A provider is an [FS]: eight methods on slash-separated paths, plus optional one-method interfaces that
// each say what the guest sees when they are absent. Providers here:
//
//   - [Memory] and [NewMemory]: a complete POSIX tree in host memory with quotas.
//   - [Dir], [ReadOnlyDir] and [NewDir]: a directory of the host, confined to it.
//   - [FromFS]: any io/fs.FS, read-only.
//   - [ReadOnly]: any FS, with every change refused.
//   - [Mount]: several FS in one tree.
//
// # Paths
//
// A path is relative to the root of the FS, slash-separated, with "." for the root itself, as in io/fs. Unlike
// io/fs, a name may hold any bytes except NUL and '/': guests may use invalid UTF-8. The names "", "." and ".."
// never occur inside a path. [CheckPath] is the exact rule and providers apply it themselves.
//
// # Symbolic links
//
// The guest's kernel resolves symbolic links. Every operation of an FS acts on the entry that the path names, and
// a provider never follows a link, in the last element or before it.
//
// # Errors
//
// A provider may return an [Errno], or any ordinary error: [ErrnoOf] turns it into what the guest sees.
//
// # Concurrency and time
//
// All methods may be called from many goroutines at once. There is no context: the server bounds how many calls
// are in flight. A provider that blocks delays requests for its own mount, those for other mounts of the same guest when
// as many as the server runs at once are blocked, and the end of the server. A provider that needs a deadline (one that
// talks to a network) must bring its own.
//
// # Lifetime
//
// The server never closes an FS: it may be shared between guests. One that holds something is an io.Closer, for whoever
// made it.
//
// Conformance of a provider is tested by package vfstest.
package vfs
