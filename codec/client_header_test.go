package codec_test

import (
	"errors"
	"testing"

	"sealift/codec"
)

func TestParseResponseHeader(t *testing.T) {
	h, err := codec.ParseResponseHeader([]byte{
		7,          // Version
		0x40, 0x06, // Code 1600
		0xff, 0, 0, 1, // Payload Size
	})
	want := codec.ResponseHeader{Version: 7, Code: codec.CodeRegistered, PayloadSize: 0x010000ff}
	if err != nil || h != want {
		t.Errorf("got %+v, %v, want %+v", h, err, want)
	}
	for _, n := range []int{0, 6, 8} {
		if _, err := codec.ParseResponseHeader(make([]byte, n)); !errors.Is(err, codec.ErrSize) {
			t.Errorf("%d bytes: %v, want ErrSize", n, err)
		}
	}
}
