// Package session makes a VM that one process owns reachable from the other
// processes of the same user: a directory of Unix sockets, one a VM, and the
// protocol spoken over them.
//
// # Directory
//
// A VM's socket is ID.sock in a directory that only its user can enter (see
// package paths), where ID is 12 random hex digits. It is bound under a hidden
// name and renamed once it is listened on, so a socket that refuses a connection
// belongs to a process that is gone, and whoever notices removes it. IDs are never
// used again. Both ends check the directory, and the server also the user id of
// every peer, as the kernel tells it.
//
// # Protocol
//
// HTTP/1.1. A request is a POST to the path of an operation, with a JSON object of
// at most [MaxBody] bytes, and so is the answer; operations that move more say so.
// A refusal has a status of 400 or more and the body {"error": text}. HTTP, because
// cancelling, streaming, upgrading a connection and looking at it with curl all
// exist. There is no version: a session and its client may be of different
// builds, so operations and fields are added, never changed, and an unknown one is
// answered with 404, or refused as a bad request.
//
// # Adding an operation
//
// Give it a path and its messages in operations.go, add it to the routes of the
// root package (session.go there), as [JSON] of a function, or as an http.Handler
// if it streams, and call it with [Client.Call] or [Client.Stream].
package session
