// Package deploy tests what deploy/ makes: packages, units, the root of an image. None of it
// runs in this process, so the race detector has nothing to look at.
package deploy
