package main

const (
	sysMemfdCreate    = 319
	sysProcessVMReadv = 310
)
