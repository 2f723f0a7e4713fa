package session

import (
	"errors"

	"sealift/codec"
	"sealift/storage"
	"sealift/transfer"
)

// Reason is why a client is refused, as one of a few words: [Counts] counts by it, and
// the log limits its lines by it. What exactly was wrong is in the log.
type Reason uint8

const (
	ReasonOther        Reason = iota // none of those below: a mistake of this package
	ReasonProtocol                   // a message that breaks the format
	ReasonState                      // a request out of order, or under another id than the connection's
	ReasonName                       // a name that is no text which can be taken
	ReasonPath                       // a file name that cannot be stored
	ReasonPacket                     // sizes and numbers of a packet that contradict each other
	ReasonContent                    // content that does not decrypt, or not to what was announced
	ReasonSize                       // a file larger than MaxFileSize
	ReasonTransfers                  // more transfers on the connection than MaxUploads
	ReasonUnverified                 // more without a verdict than MaxUnverified
	ReasonRegisterRate               // more registrations from the address than RegisterRate
	ReasonClosed                     // registration is closed, and the name was not added
	ReasonTaken                      // the name or id has a client already
	ReasonClientID                   // an id that cannot be registered
	ReasonOtherName                  // the client, or its certificate, has another name
	ReasonPublicKey                  // no usable RSA key, or another than that on record
	ReasonNoKey                      // no AES key on record to resume with
	ReasonPinned                     // the client is pinned to a TLS key that the connection lacks
	ReasonDisabled                   // the client is disabled
	ReasonUnknown                    // no such client
	ReasonVerdict                    // no file, or not for certain one, that the verdict is about
	ReasonMissing                    // the verified file is not in its place any more
	ReasonDeleted                    // the file is to be deleted
	ReasonSuperseded                 // another 1032 has taken the partial file
	ReasonDraining                   // the server is going down
	ReasonFault                      // a fault that was asked for
	Reasons                          // how many there are
)

func (r Reason) String() string {
	return [Reasons]string{
		"other", "protocol", "state", "name", "path", "packet", "content", "size", "transfers", "unverified",
		"register_rate", "closed", "taken", "client_id", "other_name", "public_key", "no_key", "pinned", "disabled",
		"unknown_client", "verdict", "missing", "deleted", "superseded", "draining", "fault",
	}[r]
}

// Step is what the server could not do for a client.
type Step uint8

const (
	StepOther      Step = iota // none of those below
	StepStorage                // keep content, or find it
	StepDiskFull               // keep content without taking the reserve of the disk
	StepRegistry               // read or change what is on record
	StepCatchingUp             // finish an earlier commit in the same place
	StepStoredKey              // use the public key on record
	Steps                      // how many there are
)

func (s Step) String() string {
	return [Steps]string{"other", "storage", "disk_full", "registry", "catching_up", "stored_public_key"}[s]
}

// offence is what the client did wrong: the reason, and what the log says.
type offence struct {
	reason Reason
	text   string
}

func (o *offence) Error() string { return o.text }

// reasonOf returns why err refuses a client. ok is false if err is a failure of the
// server's.
func reasonOf(err error) (r Reason, ok bool) {
	if o := (*offence)(nil); errors.As(err, &o) {
		return o.reason, true
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.reason, true
		}
	}
	if e := (*codec.Error)(nil); errors.As(err, &e) {
		return ReasonProtocol, true
	}
	if o := transfer.Offence(""); errors.As(err, &o) {
		return ReasonContent, true
	}
	return ReasonOther, false
}

// aboutClient reports whether err is about the client of the connection, and not about
// what was asked for: it is pinned to another key, disabled, or not on record any more.
func aboutClient(err error) bool {
	if err == nil {
		return false
	}
	r, _ := reasonOf(err)
	return r == ReasonPinned || r == ReasonDisabled || r == ReasonUnknown
}

// sentinels are the errors of other packages that refuse a client.
var sentinels = []struct {
	err    error
	reason Reason
}{
	{storage.ErrPinned, ReasonPinned},
	{storage.ErrDisabled, ReasonDisabled},
	{storage.ErrNoClient, ReasonUnknown},
	{storage.ErrNotAdded, ReasonClosed},
	{storage.ErrNameTaken, ReasonTaken},
	{storage.ErrIDTaken, ReasonTaken},
	{storage.ErrWrongName, ReasonOtherName},
	{storage.ErrKeyPinned, ReasonPublicKey},
	{storage.ErrNoFile, ReasonVerdict},
	{storage.ErrSuperseded, ReasonSuperseded},
	{storage.ErrPath, ReasonPath},
	{storage.ErrObstructed, ReasonPath},
	{storage.ErrAlike, ReasonPath},
	{transfer.ErrTooLarge, ReasonSize},
	{codec.ErrName, ReasonName},
	{codec.ErrPacket, ReasonPacket},
}

// stepError is an error of a step of the server's. Its text is that of the error.
type stepError struct {
	step Step
	error
}

func (e *stepError) Unwrap() error { return e.error }

// stepOf returns the step of the server's that failed with err in a transfer.
func stepOf(err error) Step {
	e := (*stepError)(nil)
	switch {
	case errors.Is(err, storage.ErrFull):
		return StepDiskFull
	case errors.As(err, &e):
		return e.step
	}
	return StepStorage
}
