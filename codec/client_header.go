package codec

// ParseResponseHeader reads the ResponseHeaderSize bytes that begin a reply and
// judges nothing: it is for a client that lives with servers whose Payload Size
// is wrong, and for one that shows people what came. A payload that is not
// whole gives an [*Error] that wraps ErrSize.
func ParseResponseHeader(b []byte) (ResponseHeader, error) {
	if err := checkSize(b, ResponseHeaderSize, 0); err != nil {
		return ResponseHeader{}, err
	}
	return parseResponseHeader(b), nil
}
