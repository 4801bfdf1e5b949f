// Package testenv is what tests share about their surroundings: reasons to skip that have a name, and a check that
// a test leaves no goroutine, file descriptor, child process or temporary file behind.
//
// A skip is a hole in the evidence, so it never happens silently. With GONDOLIN_NO_SKIP=1, which `make test` sets, a
// skip is a failure, except for the reasons in mayAlwaysSkip: things no amount of installing can supply.
package testenv
