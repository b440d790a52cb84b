"""Tests of Products.CPSMailAccess, on real mail servers where it matters."""
