package eventloop

import (
	"testing"

	"sealift/codec"
	"sealift/session"
)

// The bytes that have come are seen, to the last that was taken, while the content flows.
func TestObserveProgress(t *testing.T) {
	r := start(t, nil)
	b := r.rawPeer(r.raw(), "slow")
	content := random(400_000)
	packets := b.packets("f", content, 100_000)
	so := func(bytes int64) func(Observation) bool {
		return func(o Observation) bool {
			return len(o.Views) == 1 && len(o.Views[0].Transfers) == 1 && o.Views[0].Transfers[0] == session.TransferView{
				File: "f", Began: o.Views[0].Transfers[0].Began, Bytes: bytes, Total: int64(len(content)),
			}
		}
	}
	for i, p := range packets[:3] {
		b.write(p)
		r.seen("a packet", Query{Most: 1}, so(int64(i+1)*100_000))
	}
	for _, p := range packets[3:] {
		b.write(p)
	}
	b.reply(codec.CodeFileReceived)
	r.seen("nothing is under way", Query{Most: 1}, func(o Observation) bool { return o.Transfers == 0 })
}
