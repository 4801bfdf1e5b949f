// Package image keeps guest images: a kernel, the modules it needs to boot, a root file system, and a manifest that
// names them by digest. An image's own name is the digest of its manifest, so nothing in it can change unnoticed.
//
// A store is a directory, private to its user:
//
//	objects/<hex>/manifest.json, kernel, modules.cpio, root.erofs   hex is the sha256 of manifest.json
//	refs/<name>/<tag>/<arch>                                        a file with one line, the image's digest
//	verified/<hex>                                                  which files were hashed, and how they looked then
//	staging/<random>/, staging/<random>.lock                        images being made; the lock is held while they are
//	locks/<name>                                                    one builder at a time
//
// Objects and refs appear by rename, whole or not at all. A staging directory whose lock nobody holds is removed by the
// next Open.
package image
