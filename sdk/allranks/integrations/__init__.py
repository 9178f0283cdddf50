"""What joins allranks to the frameworks that people train with; each module needs only its own framework."""
