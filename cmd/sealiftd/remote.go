package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"sealift/internal/apiclient"
	"sealift/server"
)

// The flags that say where a server is.
const (
	dirFlag         = "dir"
	apiFlag         = "api"
	tokenFileFlag   = "api-token-file"
	caFlag          = "api-ca"
	fingerprintFlag = "api-fingerprint"
)

// place is where the server is that a command is about: beside it, in a directory, or
// wherever its API is.
type place struct {
	dir string
	api apiclient.Options
}

func (p *place) flags(f *pflag.FlagSet) {
	f.StringVar(&p.dir, dirFlag, ".", "the server's directory")
	f.StringVar(&p.api.URL, apiFlag, "", "`URL` of the --admin address of a server elsewhere, such as https://host:9256, in the place of --dir")
	f.StringVar(&p.api.TokenFile, tokenFileFlag, "", "`FILE` with the token for --api")
	f.StringVar(&p.api.CA, caFlag, "", "PEM `FILE` with the authorities for --api (default: those of the system)")
	f.StringVar(&p.api.Fingerprint, fingerprintFlag, "", "fingerprint of the key of --api, as sealiftd fingerprint prints it, in the place of an authority")
}

// remote returns the API that the flags ask for, or nil: then the directory counts. What the
// command line says counts before the environment.
func (p *place) remote(f *pflag.FlagSet) (*apiclient.Client, error) {
	typed := func(name string) bool {
		by := f.Lookup(name).Annotations[from]
		return by != nil && by[0] == commandLine
	}
	switch {
	case p.api.URL == "":
		for _, name := range []string{tokenFileFlag, caFlag, fingerprintFlag} {
			if typed(name) {
				return nil, fmt.Errorf("--%s without --%s: want the URL of a server's --admin address", name, apiFlag)
			}
		}
		return nil, nil
	case typed(dirFlag) && typed(apiFlag):
		return nil, errors.New("--dir and --api: want one of them")
	case typed(dirFlag):
		return nil, nil
	}
	return apiclient.New(p.api)
}

// hinted is err, with the advice of the API apart from it.
func hinted(err error) error {
	var e *apiclient.Error
	if errors.As(err, &e) && e.Advice != "" {
		return &server.Hinted{Err: err, Hint: e.Advice}
	}
	return err
}

// records is what lists read: a *server.ReadOnly, or remoteRecords.
type records interface {
	ClientRows(ctx context.Context, yield func(server.ClientRow) error) error
	FileRows(ctx context.Context, yield func(server.FileRow) error) error
	EventRows(ctx context.Context, yield func(server.EventRow) error) error
}

// remoteRecords are those of a server with an API.
type remoteRecords struct{ api *apiclient.Client }

func (r *remoteRecords) ClientRows(ctx context.Context, yield func(server.ClientRow) error) error {
	return remoteRows(ctx, r.api, "clients", yield)
}

func (r *remoteRecords) FileRows(ctx context.Context, yield func(server.FileRow) error) error {
	return remoteRows(ctx, r.api, "files", yield)
}

func (r *remoteRecords) EventRows(ctx context.Context, yield func(server.EventRow) error) error {
	return remoteRows(ctx, r.api, "events", yield)
}

func remoteRows[T any](ctx context.Context, api *apiclient.Client, list string, yield func(T) error) error {
	return api.Rows(ctx, list, func(line json.RawMessage) error {
		var row T
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		return yield(row)
	})
}
