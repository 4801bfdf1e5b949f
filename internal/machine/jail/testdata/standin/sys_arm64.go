package main

const (
	sysMemfdCreate    = 279
	sysProcessVMReadv = 270
)
