package events

import (
	"encoding/json"
	"strconv"
	"time"

	"sealift/storage"
)

// payload is an event as a target is told: a CloudEvent in structured mode
// (https://github.com/cloudevents/spec, version 1.0).
type payload struct {
	SpecVersion string `json:"specversion"`
	ID          string `json:"id"`
	Source      string `json:"source"`
	Type        string `json:"type"`
	Subject     string `json:"subject"`
	Time        string `json:"time"`
	ContentType string `json:"datacontenttype"`
	Data        data   `json:"data"`
}

type data struct {
	Kind   string `json:"kind"`
	Why    string `json:"why,omitempty"`
	Client client `json:"client"`
	File   *file  `json:"file,omitempty"`
}

type client struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type file struct {
	Name    string `json:"name"`   // as the client sent it
	Path    string `json:"path"`   // below the client's folder
	Stored  string `json:"stored"` // below the server's directory
	Size    int64  `json:"size_bytes"`
	Cksum   uint32 `json:"cksum"`
	Version string `json:"version"`
}

// typePrefix is in front of the kind in a CloudEvent's type.
const typePrefix = "sealift."

// timeFormat is RFC 3339, to the millisecond, in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z"

// encode returns e as JSON. source says which server it comes from.
func encode(e *storage.Event, source string) ([]byte, error) {
	p := payload{
		SpecVersion: "1.0", ID: e.ID, Source: source, Type: typePrefix + string(e.Kind),
		Subject: e.Client.String(), Time: e.Happened.UTC().Format(timeFormat), ContentType: "application/json",
		Data: data{Kind: string(e.Kind), Why: string(e.Why), Client: client{e.Client.String(), e.ClientName}},
	}
	if e.Path != "" {
		p.Subject += "/" + e.Path
		p.Data.File = &file{e.FileName, e.Path, stored(e), e.Size, e.Cksum, e.Version}
	}
	return json.Marshal(p)
}

// stored is where the file is, or will be or was, below the server's directory.
func stored(e *storage.Event) string {
	f := storage.File{ID: e.Client, Path: e.Path}
	return f.PathName()
}

// environment returns e as variables of an environment. What there is not is empty, so that
// no other event's is inherited.
func environment(e *storage.Event) []string {
	var size, cksum, place string
	if e.Path != "" {
		size, cksum, place = strconv.FormatInt(e.Size, 10), strconv.FormatUint(uint64(e.Cksum), 10), stored(e)
	}
	return []string{
		"SEALIFT_EVENT_ID=" + e.ID,
		"SEALIFT_EVENT_KIND=" + string(e.Kind),
		"SEALIFT_EVENT_WHY=" + string(e.Why),
		"SEALIFT_EVENT_TIME=" + e.Happened.UTC().Format(time.RFC3339),
		"SEALIFT_EVENT_ATTEMPT=" + strconv.Itoa(e.Attempts+1),
		"SEALIFT_EVENT_CLIENT_ID=" + e.Client.String(),
		"SEALIFT_EVENT_CLIENT_NAME=" + e.ClientName,
		"SEALIFT_EVENT_FILE_NAME=" + e.FileName,
		"SEALIFT_EVENT_PATH=" + e.Path,
		"SEALIFT_EVENT_STORED=" + place,
		"SEALIFT_EVENT_SIZE=" + size,
		"SEALIFT_EVENT_CKSUM=" + cksum,
		"SEALIFT_EVENT_VERSION=" + e.Version,
	}
}
