// Package policyfile reads policies from files: what a sandbox may reach, which
// secrets it gets and from where, its image and its limits.
//
// A file is YAML, without anchors, aliases, merges and tags; docs/policy.md has its
// fields. Whatever is not understood, or cannot be meant, is an error that names
// file, line and column: [Load] returns nothing that [policy.Compile] would refuse.
//
// Several files can only narrow each other: a request must be allowed by every file
// that has a network section, and an internal address exempted by every one; of
// bounds and limits the smallest counts; an image must be the same in all. Only the
// first file may have secrets. A section that no file has allows nothing.
//
// A policy file is as good as a command line: it may name variables and files of
// the host as sources of secrets. Files after the first can name none.
package policyfile
