package server

// movedTo returns the name of the registry that the server in dir was moved to, "" if it was
// not.
func movedTo(dir string) string { return "" }
