// Counts how deeply the evaluator is in itself, while it lives.
#pragma once

#include "model/jinja_evaluator.h"

namespace switchyard::model::jinja {

struct Evaluator::Deeper {
  explicit Deeper(Evaluator& owner) : evaluator(owner) {
    if (++evaluator.depth_ > evaluator.limits_.depth) {
      --evaluator.depth_;
      raise(ErrorCode::exhausted, "expressions, blocks and macros are more than {} deep in each other",
            evaluator.limits_.depth);
    }
  }
  ~Deeper() { --evaluator.depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
  Evaluator& evaluator;
};

}  // namespace switchyard::model::jinja
