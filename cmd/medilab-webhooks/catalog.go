package main

import (
	"fmt"
	"os"

	"github.com/medilab/webhooks/domain"
)

// eventTypesSetting is the setting of every command that checks event types.
func eventTypesSetting(path *string) setting {
	return setting{env: "MEDILAB_EVENT_TYPES", flag: "event-types", value: path, usage: "file that adds event types"}
}

// loadCatalog returns the built-in event types and those of the file, if any.
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
