package server

import "errors"

// Hinted is an error with advice for the operator of the server. The advice is no part
// of the error's text: a program prints it by itself.
type Hinted struct {
	Err  error
	Hint string // whole sentences
}

func (h *Hinted) Error() string { return h.Err.Error() }

// Unwrap returns what h is about.
func (h *Hinted) Unwrap() error { return h.Err }

// Hint returns the advice that err carries, "" if there is none.
func Hint(err error) string {
	var h *Hinted
	if errors.As(err, &h) {
		return h.Hint
	}
	return ""
}
