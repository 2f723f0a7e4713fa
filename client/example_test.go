package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"

	"sealift/client"
)

// Everything at once: the first run registers and writes me.info, later ones
// reconnect with it.
func ExampleRun() {
	results, err := client.Run(context.Background(), client.Options{
		Server:   "files.example.org:1256",
		Name:     "Michael Jackson",
		Identity: client.IdentityFile("me.info"),
	}, []client.File{{Path: "specs/New_product_spec.docx"}}, nil)
	if errors.Is(err, client.ErrNameTaken) {
		log.Fatal("somebody else has that name")
	} else if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.Name, r.Size, r.Cksum)
	}
}

// To servers of which nothing is known: what they want is found out, and kept
// for the next run.
func ExampleOptions_known() {
	_, err := client.Run(context.Background(), client.Options{
		Server:   "files.example.org:1256",
		Name:     "Michael Jackson",
		Identity: client.IdentityFile("me.info"),
		Codes:    client.AutoCodes,
		Dialect:  client.Auto,
		Known:    client.KnownServersFile("known_servers"),
	}, []client.File{{Path: "specs/New_product_spec.docx"}}, nil)
	if errors.Is(err, client.ErrNoDialect) {
		log.Fatal("sealift conform shows what this server does")
	} else if err != nil {
		log.Fatal(err)
	}
}

// Step by step, with content that is in memory.
func ExampleClient_Send() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Server: "127.0.0.1", Name: "Michael Jackson"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Login(ctx); err != nil {
		log.Fatal(err)
	}
	content := []byte("hello")
	if _, err := c.Send(ctx, "hello.txt", bytes.NewReader(content), int64(len(content))); err != nil {
		log.Fatal(err)
	}
}
