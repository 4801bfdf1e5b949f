// Package vfstest is the conformance suite of [vfs.FS].
//
// [Run] and [RunReadOnly] call a provider directly. [RunPath] and [RunPathReadOnly] make the same assertions with
// ordinary system calls in a directory, so that they can be run inside a guest on a mounted provider: build the test
// binary of this package statically (CGO_ENABLED=0 go test -c) and start it there with GONDOLIN_VFSTEST_DIR naming
// the directory.
package vfstest
