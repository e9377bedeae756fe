// How long prefills and decode steps take, from measurements or from coefficients. Values; const use from any
// thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::simulate {

struct MeasuredStep {
  std::uint32_t input_tokens = 0;  // of each request
  std::uint32_t batch = 0;
  double prefill_ms = 0;  // of all requests together; 0: was not measured
  double decode_ms = 0;   // 0: was not measured
};

// ms = base + per_token * tokens, and base + per_context_token * tokens of all rows + per_row * rows.
struct LinearTimes {
  double prefill_base_ms = 0;
  double prefill_token_ms = 0;
  double decode_base_ms = 0;
  double decode_context_ms = 0;
  double decode_row_ms = 0;
};

class StepTimes {
 public:
  static StepTimes linear(const LinearTimes& times);
  // Interpolates between measured points: prefill over tokens, decode over rows and context per row; beyond
  // them it goes on with the slope of a least-squares fit. A point whose prefill is far quicker than that of
  // the same tokens in one prompt was split by its server, and is left out. Errors: invalid (no prefill of a
  // single prompt).
  static Result<StepTimes> measured(std::vector<MeasuredStep> points);

  StepTimes scaled(double factor) const;

  // Milliseconds.
  double prefill(std::uint64_t tokens) const;
  double decode(std::uint32_t rows, std::uint64_t context) const;
  const LinearTimes& fit() const { return fit_; }

 private:
  struct Point {
    double x;
    double ms;
  };
  struct Line {
    double rows;
    std::vector<Point> points;  // over context tokens per row
  };

  static double along(const std::vector<Point>& points, double x, double slope);

  LinearTimes fit_;
  std::vector<Point> prefill_;  // over tokens
  std::vector<Line> decode_;    // by rows
  double factor_ = 1;
};

// Columns model, gpu, input_tokens_per_request, batch, prefill_p50_ms, decode_step_p50_ms, named by the first
// line. A time that was not measured may be empty. Times of one GPU by model name. Errors: invalid, naming
// the line.
Result<std::map<std::string, StepTimes>> parse_profile(std::string_view csv, std::string_view gpu);

}  // namespace switchyard::simulate
