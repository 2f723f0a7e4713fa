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
	registryFlag    = "registry"
	filesFlag       = "files"
	apiFlag         = "api"
	tokenFileFlag   = "api-token-file"
	caFlag          = "api-ca"
	fingerprintFlag = "api-fingerprint"
)

// stores are where a server has its records and its files.
type stores struct{ server.Stores }

func (s *stores) dirFlag(f *pflag.FlagSet) {
	f.StringVar(&s.Dir, dirFlag, ".", "the server's directory")
}

// recordFlags are those of commands that have nothing to do with the files' content.
func (s *stores) recordFlags(f *pflag.FlagSet) {
	s.dirFlag(f)
	f.StringVar(&s.Registry, registryFlag, "", "`URL` of the registry, postgres://…, as the server has it, in the place of the database in --dir")
}

func (s *stores) flags(f *pflag.FlagSet) {
	s.recordFlags(f)
	f.StringVar(&s.Files, filesFlag, "", "`URL` of the files, s3://…, as the server has it, in the place of files/ in --dir")
}

// place is where the server is that a command is about: its stores, or its API.
type place struct {
	stores
	api apiclient.Options
}

func (p *place) flags(f *pflag.FlagSet) {
	p.stores.flags(f)
	p.apiFlags(f)
}

func (p *place) apiFlags(f *pflag.FlagSet) {
	f.StringVar(&p.api.URL, apiFlag, "", "`URL` of the --admin address of a server elsewhere, such as https://host:9256, in the place of --dir")
	f.StringVar(&p.api.TokenFile, tokenFileFlag, "", "`FILE` with the token for --api")
	f.StringVar(&p.api.CA, caFlag, "", "PEM `FILE` with the authorities for --api (default: those of the system)")
	f.StringVar(&p.api.Fingerprint, fingerprintFlag, "", "fingerprint of the key of --api, as sealiftd fingerprint prints it, in the place of an authority")
}

// remote returns the API that the flags ask for, or nil: then the stores count. What the
// command line says counts before the environment.
func (p *place) remote(f *pflag.FlagSet) (*apiclient.Client, error) {
	typed := func(name string) bool {
		flag := f.Lookup(name)
		return flag != nil && flag.Annotations[from] != nil && flag.Annotations[from][0] == commandLine
	}
	if p.api.URL == "" {
		for _, name := range []string{tokenFileFlag, caFlag, fingerprintFlag} {
			if typed(name) {
				return nil, fmt.Errorf("--%s without --%s: want the URL of a server's --admin address", name, apiFlag)
			}
		}
		return nil, nil
	}
	for _, name := range []string{dirFlag, registryFlag, filesFlag} {
		switch {
		case typed(name) && typed(apiFlag):
			return nil, fmt.Errorf("--%s and --%s: want one of them", name, apiFlag)
		case typed(name):
			return nil, nil
		}
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
