package admin

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed page
var pageFiles embed.FS

// pagePolicy lets the page use its own files, and nothing else: a name that gets into it
// as markup does nothing.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageRoutes are those of the page. It has nothing of the server's: what it shows it asks
// the API for, with the token.
func pageRoutes() map[string]route {
	var index bytes.Buffer
	template.Must(template.ParseFS(pageFiles, "page/index.html")).Execute(&index, sections)
	file := func(kind string, text []byte) route {
		return route{open: true, quiet: true, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Security-Policy", pagePolicy)
			_, _ = w.Write(text)
		}}
	}
	read := func(name string) []byte {
		text, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		return text
	}
	routes := map[string]route{"/": file("text/html; charset=utf-8", index.Bytes())}
	for _, name := range []string{"format.js", "data.js", "page.js", "uplot.js"} {
		routes["/"+name] = file("text/javascript; charset=utf-8", read(name))
	}
	for _, name := range []string{"page.css", "uplot.css"} {
		routes["/"+name] = file("text/css; charset=utf-8", read(name))
	}
	routes["/icon.svg"] = file("image/svg+xml", read("icon.svg"))
	return routes
}

// section is a table of the page.
type section struct {
	ID, Title string
	Columns   []string // "": actions
	Empty     string   // what it says without rows
	More      bool     // rows are asked for in pages, when somebody opens it
}

var sections = []section{
	{ID: "transfers", Title: "Uploads under way", Columns: []string{"File", "Client", "Progress", "Rate"}, Empty: "Nothing is on its way."},
	{ID: "connections", Title: "Connected clients", Columns: []string{"Client", "Address", "Since", ""}, Empty: "Nobody is connected."},
	{ID: "recent", Title: "Last files", Columns: []string{"File", "Client", "Size", "When", ""}, Empty: "No file was verified since the server began."},
	{ID: "refusals", Title: "Last refusals and failures", Columns: []string{"When", "What", "Client", "Why"}, Empty: "Nobody was refused since the server began."},
	{ID: "waiting", Title: "Waits to be told", Columns: []string{"Target", "Events", "Oldest", "Problem", ""}, Empty: "Nothing waits."},
	{ID: "clients", Title: "Clients on record", Columns: []string{"Client", "Last seen", "State", ""}, Empty: "No client has registered.", More: true},
	{ID: "files", Title: "Files on record", Columns: []string{"File", "Client", "Size", "State", ""}, Empty: "There is no file.", More: true},
	{ID: "partials", Title: "Partial files", Columns: []string{"File", "Client", "There", "Last came", ""}, Empty: "There is no partial file.", More: true},
}
