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

// calm reports whether the plan needs a machine that is not busy with others, or leaves it to them: its servers read once
// and have to do so before the next packet comes, or they are silent where others answer.
func (p plan) calm() bool {
	return slices.ContainsFunc(p.trials, func(t Trial) bool {
		return slices.ContainsFunc(t.Server.Quirks, func(quirk string) bool {
			return readsOnce(quirk) || quirk == "unknown-silent" || quirk == "fixed-read"
		})
	})
}

// A section is a table that is yet to be filled.
type section struct {
	Table
	plans []plan
	sizes []int
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
			"`transfer.info`: the batch client, which tries no dialects. Servers that read once, or are silent where others answer, are\n" +
			"tried with `-calm`, which wants a machine that does nothing else.",
	}
	meInfo := Table{
		Title: "me.info", Corner: "written by, read by",
		Note: "A client takes over the identity that another one has registered at `sealiftd`.",
	}
	peers := Table{
		Title: "Between the peers", Corner: "client, server",
		Note: "The peers of one dialect among themselves: the proof that they are right.",
	}
	return p.fill(ctx, []section{
		{toSealift, toSealiftPlans(), sizes},
		{fromSealift, fromSealiftPlans(), sizes},
		{unaided, p.unaidedPlans(), sizes},
		{meInfo, meInfoPlans(), sizes},
		{peers, peerPlans(), sizes},
		survey(),
	}, scratch)
}

// unaidedPlans are the fieldPlans, without the calm ones unless Calm is set.
func (p *Programs) unaidedPlans() []plan {
	if p.Calm {
		return fieldPlans()
	}
	return slices.DeleteFunc(fieldPlans(), plan.calm)
}

// peerPlans try the peers' clients with the peers' servers of the same dialect. A failure is a fault of the peers.
func peerPlans() []plan {
	var plans []plan
	for _, dialect := range Dialects {
		for _, from := range Peers {
			for _, to := range Peers {
				trial := Trial{Client: Client{Maker: from, Dialect: dialect}, Server: Server{Maker: to, Dialect: dialect}}
				plans = append(plans, plan{fmt.Sprintf("%s to %s, %s", from, to, dialect), []Trial{trial}})
			}
		}
	}
	return plans
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
				Server: Server{Maker: Sealift, Keyless: true}, // reader has writer's me.info, and not its TLS key
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
func survey() section {
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
	return section{survey, plans, []int{surveySize}}
}

// slots is how many plans are run at a time: more than there are processors, because clients wait before they try again.
const slots = 16

// fill runs the plans and makes them the rows of the tables. A table without columns gets one for each size. The calm plans
// come first, by themselves.
func (p *Programs) fill(ctx context.Context, sections []section, scratch string) ([]Table, error) {
	scratch, err := os.MkdirTemp(scratch, "tables-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	tables := make([]Table, len(sections))
	for i, s := range sections {
		tables[i] = s.Table
		if s.Columns == nil {
			for _, size := range s.sizes {
				tables[i].Columns = append(tables[i].Columns, withCommas(size))
			}
		}
		tables[i].Rows = make([]Row, len(s.plans))
	}
	for _, calm := range []bool{true, false} {
		var group sync.WaitGroup
		free := make(chan struct{}, slots)
		for i, s := range sections {
			for j, plan := range s.plans {
				if plan.calm() != calm {
					continue
				}
				free <- struct{}{}
				group.Go(func() {
					defer func() { <-free }()
					tables[i].Rows[j] = p.row(ctx, plan, s.sizes, scratch)
				})
			}
		}
		group.Wait()
	}
	return tables, ctx.Err()
}

// row runs a plan.
func (p *Programs) row(ctx context.Context, plan plan, sizes []int, scratch string) Row {
	row := Row{Name: plan.name}
	for _, trial := range plan.trials {
		row.Results = append(row.Results, p.Run(ctx, trial, sizes, scratch)...)
	}
	return row
}
