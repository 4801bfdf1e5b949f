// Command gondolin runs untrusted code in a micro-VM with programmed network and files.
package main

import (
	"os"

	"gondolin/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.LookupEnv))
}
