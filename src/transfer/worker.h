// The thread that steps one engine. It spins for a moment while there is traffic, then yields, then sleeps
// until a descriptor or a deadline wakes it; an idle engine costs a few wake-ups a second.
#pragma once

#include <memory>

namespace switchyard {
class EngineCore;
}

namespace switchyard::transfer {

// Runs until the engine has finished; keeps it alive meanwhile.
void run_worker(std::shared_ptr<EngineCore> core);

}  // namespace switchyard::transfer
