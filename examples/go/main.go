// Buys a book, with the stubs that Go's own generator makes of the published contract.
//
//	BOOKMESH_TOKEN=... go run . 978-0134685991 29.99
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	customer "bookmesh.example/buy/gen/bookmesh/customer/v1"
)

// Tries again when nobody answers. That is safe, as the purchase below carries an idempotency key.
const retries = `{"methodConfig": [{
	"name": [{"service": "bookmesh.customer.v1.PurchaseService"}],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: buy ISBN MAX_PRICE")
	}
	maxPrice, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		log.Fatal(err)
	}
	if err := buy(os.Args[1], maxPrice); err != nil {
		log.Fatal(err)
	}
}

func buy(bookID string, maxPrice float64) error {
	address := setting("BOOKMESH_ADDRESS", "127.0.0.1:9090")
	transport := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13})
	if strings.HasPrefix(address, "127.0.0.1:") {
		transport = insecure.NewCredentials()
	}
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(transport), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return err
	}
	defer connection.Close()
	purchases := customer.NewPurchaseServiceClient(connection)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx,
		"authorization", "Bearer "+os.Getenv("BOOKMESH_TOKEN"),
		"idempotency-key", rand.Text())

	accepted, err := purchases.CreatePurchaseRequest(ctx, &customer.CreatePurchaseRequestRequest{
		BookId:       bookID,
		MaxPrice:     maxPrice,
		PaymentToken: setting("BOOKMESH_PAYMENT_TOKEN", "tok_abc123"),
	})
	if err != nil {
		return err
	}
	events, err := purchases.WatchPurchaseRequest(ctx,
		&customer.WatchPurchaseRequestRequest{RequestId: accepted.RequestId})
	if err != nil {
		return err
	}
	for {
		event, err := events.Recv()
		if err != nil {
			return err
		}
		if step := event.GetStep(); step != nil {
			fmt.Println(step.Name, step.GetSellerId())
		}
		if result := event.GetResult(); result != nil {
			fmt.Println(result.Status, result.GetFinalPrice(), result.GetSellerId(), result.GetMessage())
			return nil
		}
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
