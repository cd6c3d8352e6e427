"""The provider daemon: offers, inventory, limits, HTTP interface."""
