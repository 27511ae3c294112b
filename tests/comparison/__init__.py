"""The known bugs as another tool's checks see them, beside what the contracts say."""
