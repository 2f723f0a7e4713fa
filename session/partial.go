package session

// Alive reports whether a transfer on an open connection has the partial file with that
// key, or may go on with it. Any goroutine may call it.
func (svc *Service) Alive(incoming string) bool { return false }
