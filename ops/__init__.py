"""What runs beside Wardgate and is no part of it: dashboards, alerts, and a whole cluster on one machine."""
