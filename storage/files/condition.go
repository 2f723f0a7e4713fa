package files

// Condition is what can be said of a Store without trying it out.
type Condition struct {
	// Free is how many bytes are free on its file system, and Reserve how many of them
	// stay free, see Options.MinFree. Known is whether the file system says how many are
	// free, and how large it is.
	Free, Reserve int64
	Known         bool
	Total         int64 // bytes of the file system
	// Moved is ErrMoved, or why it is not known, where the paths of the store may not
	// lead to what it has open.
	Moved error
}

// Short reports whether content is refused for the reserve's sake.
func (c Condition) Short() bool { return c.Known && c.Reserve > 0 && c.Free < c.Reserve }

// Condition looks at the file system. It takes as long as the disk takes to answer.
func (s *Store) Condition() (Condition, error) {
	free, total, err := s.askSpace()
	c := Condition{Free: free, Total: total, Known: total > 0, Moved: s.atHome()}
	if s.space != nil {
		c.Reserve = s.space.kept()
	}
	return c, err
}
