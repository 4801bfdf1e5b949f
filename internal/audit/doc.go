// Package audit records what a sandbox did and what decided it: one event, one
// JSON object, one line.
//
// # Schema
//
// This is version 1 of the schema; every line says so in "v". A field that is
// empty is left out. New fields may appear within a version; a field never
// changes its meaning within one. [Event] documents each field, and the kinds
// list which of them they have.
//
// Events hold text of the guest's choice. Every string is bounded, valid UTF-8,
// free of control and formatting characters, and free of the secret values the
// log was told about ([Log.Redact]); that is the last line of defence, since no
// caller should pass one.
//
// # Chain
//
// The last two fields of a line are "seq", the number of the event in its chain,
// from 1, and "hash". The hash is SHA-256 over the 32 bytes of the hash before,
// 32 zero bytes for the first, followed by the line's own bytes up to, and
// without, `,"hash":`. No canonical form of JSON is needed: what is hashed is
// what is written. A [File] begins with a record of kind log that repeats the hash
// the chain goes on from, so each file of a rotated log can be read by itself,
// and ends with one that says it was closed.
//
// [Verify] tells whether lines were changed, removed, added or reordered within
// what it reads. It cannot tell that lines at the end are missing, unless the
// closing record is the last one or the caller has a hash from later on; and
// nothing can be told about someone who rewrites the whole chain from some line
// on, unless a hash of a later line is kept where they cannot write.
//
// # Loss
//
// Nothing is dropped. [Log.Record] returns when every sink has the event, so a
// slow sink slows the guest down, and a sink that failed once fails for good:
// callers that must not act unrecorded look at [Log.Err].
package audit
