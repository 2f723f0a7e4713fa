package interop

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
)

// surveySize is the size of the file, in bytes, with which everybody tries everybody.
const surveySize = 10_001

// A plan is a row that is yet to be run: its results are those of its trials, one after the other.
type plan struct {
	name   string
	trials []Trial
}

// Matrix tries who can send files of these sizes to whom, and returns the tables of docs/INTEROP.md. Scratch files go to scratch, which must
// exist. It needs BuildSealift. The error is for what kept it from trying; see [Table.Failures] for the failures.
func (p *Programs) Matrix(ctx context.Context, sizes []int, scratch string) ([]Table, error) {
	toSealift := Table{
		Title: "To sealiftd", Corner: "client",
		Note: "Every client, unchanged, to a `sealiftd` without settings.",
	}
	fromSealift := Table{
		Title: "From sealift", Corner: "server",
		Note: "`sealift` with the `--dialect` and `--packet-size` of the server, to every server.",
	}
	unaided := Table{
		Title: "From sealift, without options", Corner: "server",
		Note: "`sealift` without a word about the server: it finds out what the server wants, and remembers it for the next\n" +
			"file. `fresh`: a new client and nothing remembered with each file. `rejected`: the server does not know the client.\n" +
			"`transfer.info`: the batch client, which tries no dialects.",
	}
	meInfo := Table{
		Title: "me.info", Corner: "written by, read by",
		Note: "A client takes over the identity that another one has registered at `sealiftd`.",
	}
	tables := []Table{}
	for _, section := range []struct {
		Table
		plans []plan
	}{
		{toSealift, toSealiftPlans()},
		{fromSealift, fromSealiftPlans()},
		{unaided, fieldPlans()},
		{meInfo, meInfoPlans()},
	} {
		table, err := p.fill(ctx, section.Table, section.plans, sizes, scratch)
		if err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	peers, err := p.peerTable(ctx, sizes, scratch)
	if err != nil {
		return nil, err
	}
	survey, err := p.survey(ctx, scratch)
	return append(tables, peers, survey), err
}

// peerTable tries the peers' clients with the peers' servers of the same dialect. A failure is a fault of the peers.
func (p *Programs) peerTable(ctx context.Context, sizes []int, scratch string) (Table, error) {
	var plans []plan
	for _, dialect := range Dialects {
		for _, from := range Peers {
			for _, to := range Peers {
				trial := Trial{Client: Client{Maker: from, Dialect: dialect}, Server: Server{Maker: to, Dialect: dialect}}
				plans = append(plans, plan{fmt.Sprintf("%s to %s, %s", from, to, dialect), []Trial{trial}})
			}
		}
	}
	peers := Table{
		Title: "Between the peers", Corner: "client, server",
		Note: "The peers of one dialect among themselves: the proof that they are right.",
	}
	return p.fill(ctx, peers, plans, sizes, scratch)
}

func toSealiftPlans() []plan {
	clients := []Client{}
	for _, maker := range []Maker{Sealift, Cpp, Python} {
		for _, dialect := range Dialects {
			clients = append(clients, Client{Maker: maker, Dialect: dialect})
		}
		if maker == Sealift {
			clients = append(clients,
				Client{Maker: maker, Dialect: spec, Batch: true},
				Client{Maker: maker, Dialect: spec, OneRun: true})
		} else {
			clients = append(clients, HabitualClients(maker)...)
			clients = append(clients, FieldClients(maker)...)
		}
	}
	var plans []plan
	for _, client := range clients {
		plans = append(plans, plan{client.String(), []Trial{{Client: client, Server: Server{Maker: Sealift}}}})
	}
	return plans
}

func fromSealiftPlans() []plan {
	servers := []Server{}
	for _, maker := range Peers {
		for _, dialect := range Dialects {
			servers = append(servers, Server{Maker: maker, Dialect: dialect})
		}
		servers = append(servers, QuirkyServers(maker)...)
	}
	var plans []plan
	for _, server := range servers {
		client := Client{Maker: Sealift, Dialect: server.Dialect}
		plans = append(plans, plan{server.String(), []Trial{{Client: client, Server: server}}})
		if slices.Contains(server.Quirks, "close-after-1604") {
			client.OneRun = true
			plans = append(plans, plan{server.String() + ", one run", []Trial{{Client: client, Server: server}}})
		}
	}
	return plans
}

func meInfoPlans() []plan {
	var plans []plan
	makers := []Maker{Sealift, Cpp, Python}
	for _, writer := range makers {
		for _, reader := range makers {
			if writer == reader {
				continue
			}
			trial := Trial{
				MeInfo: Client{Maker: writer, Dialect: spec},
				Client: Client{Maker: reader, Dialect: spec},
				Server: Server{Maker: Sealift},
			}
			plans = append(plans, plan{fmt.Sprintf("%s, %s", writer, reader), []Trial{trial}})
		}
	}
	for _, writer := range Peers {
		for _, style := range MeInfoStyles {
			trial := Trial{
				MeInfo: Client{Maker: writer, Dialect: spec, Habits: []string{"--me-info", style}},
				Client: Client{Maker: Sealift, Dialect: spec},
				Server: Server{Maker: Sealift},
			}
			plans = append(plans, plan{fmt.Sprintf("%s --me-info %s, %s", writer, style, Sealift), []Trial{trial}})
		}
	}
	return plans
}

// survey has a client of each dialect try a server of each other.
func (p *Programs) survey(ctx context.Context, scratch string) (Table, error) {
	survey := Table{
		Title: "Everybody to everybody", Corner: "client \\ server", Survey: true,
		Note: fmt.Sprintf("The C++ clients, which speak one dialect, and the Python servers, which take one, with a file of %s\n"+
			"bytes; `sealift` in its default dialect. –: not stored.", withCommas(surveySize)),
	}
	servers := []Server{{Maker: Sealift}}
	for _, dialect := range Dialects {
		servers = append(servers, Server{Maker: Python, Dialect: dialect})
	}
	for _, server := range servers {
		survey.Columns = append(survey.Columns, server.String())
	}
	clients := []Client{{Maker: Sealift, Dialect: spec}}
	for _, dialect := range Dialects {
		clients = append(clients, Client{Maker: Cpp, Dialect: dialect})
	}
	var plans []plan
	for _, client := range clients {
		row := plan{name: client.String()}
		for _, server := range servers {
			row.trials = append(row.trials, Trial{Client: client, Server: server})
		}
		plans = append(plans, row)
	}
	return p.fill(ctx, survey, plans, []int{surveySize}, scratch)
}

// fill runs the plans, several at a time because clients wait before they try again, and adds them as rows. A table
// without columns gets one for each size.
func (p *Programs) fill(ctx context.Context, t Table, plans []plan, sizes []int, scratch string) (Table, error) {
	if t.Columns == nil {
		for _, size := range sizes {
			t.Columns = append(t.Columns, withCommas(size))
		}
	}
	scratch, err := os.MkdirTemp(scratch, "table-")
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(scratch)
	t.Rows = make([]Row, len(plans))
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, plan := range plans {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Rows[i].Name = plan.name
			for _, trial := range plan.trials {
				t.Rows[i].Results = append(t.Rows[i].Results, p.Run(ctx, trial, sizes, scratch)...)
			}
		})
	}
	group.Wait()
	return t, ctx.Err()
}
