// The transfer engine's numbers, as an instance reports them.
#pragma once

#include "pool/stats.h"
#include "switchyard/transfer.h"

namespace switchyard::pool {

void add_engine_stats(const EngineMetrics& engine, Stats& stats);

}  // namespace switchyard::pool
