"""Model code only: preprocessing, bundles, engines, camera simulation; training needs torch."""
