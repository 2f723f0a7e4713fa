package codec

// Later returns the number that the later edition of the assignment gives to a
// request: 825 for 1025. Other codes it returns as they are.
func (c Code) Later() Code {
	for later, first := range laterEdition {
		if first == c {
			return later
		}
	}
	return c
}
