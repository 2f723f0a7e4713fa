//go:build !unix

package client

const dontWait = 0
