// Package archtest holds the architecture as one table: every package of the module, what it may import of the module,
// and which other modules it may use. Its test fails for an import that is not in the table and for an entry nobody
// uses, so the table is always exactly what is.
//
// It parses the source files itself, for every operating system, because `go test` would cache a result learned from
// running go list.
package archtest
