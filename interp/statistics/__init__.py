"""Statistics on heads: effects, p-values, seeds as the unit, agreement between rankings."""
