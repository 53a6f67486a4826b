package main

import (
	"fmt"
	"os"

	"github.com/medilab/webhooks/domain"
)

// eventTypesSetting is the setting of every command that checks event types.
func (o *databaseOptions) eventTypesSetting() setting {
	return setting{env: "MEDILAB_EVENT_TYPES", flag: "event-types", value: &o.eventTypes, usage: "file that adds event types"}
}

// catalog returns the built-in event types and those of the file, if any.
func (o databaseOptions) catalog() (domain.Catalog, error) {
	if o.eventTypes == "" {
		return domain.BuiltinCatalog(), nil
	}
	data, err := os.ReadFile(o.eventTypes)
	if err != nil {
		return domain.Catalog{}, fmt.Errorf("read the event types: %w; check MEDILAB_EVENT_TYPES", err)
	}
	catalog, err := domain.ParseCatalog(data)
	if err != nil {
		return domain.Catalog{}, fmt.Errorf("read the event types in %s: %w", o.eventTypes, err)
	}
	return catalog, nil
}
