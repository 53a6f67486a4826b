package main

import (
	"fmt"
	"os"

	"github.com/medilab/webhooks/domain"
)

// loadCatalog gives the built-in event types and those of the file; "" names none.
func loadCatalog(file string) (domain.Catalog, error) {
	if file == "" {
		return domain.BuiltinCatalog(), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return domain.Catalog{}, fmt.Errorf("read the event types: %w; check MEDILAB_EVENT_TYPES", err)
	}
	catalog, err := domain.ParseCatalog(data)
	if err != nil {
		return domain.Catalog{}, fmt.Errorf("read the event types in %s: %w", file, err)
	}
	return catalog, nil
}
