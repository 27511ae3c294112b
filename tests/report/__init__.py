"""Tests of the reports: what people read, and what machines do."""
