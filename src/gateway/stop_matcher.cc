#include "gateway/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace switchyard::gateway {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  automata_.reserve(stops.size());
  for (const std::string& stop : stops) {
    Automaton automaton{stop, std::vector<std::size_t>(stop.size() + 1, 0), 0};
    std::size_t border = 0;
    for (std::size_t i = 1; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = automaton.failure[border];
      if (stop[i] == stop[border]) ++border;
      automaton.failure[i + 1] = border;
    }
    automata_.push_back(std::move(automaton));
  }
}

std::string StopMatcher::push(std::string_view text) {
  if (matched_) return {};
  if (automata_.empty()) return std::string(text);
  held_ += text;
  const std::size_t before = held_.size() - text.size();
  std::size_t possible = 0;  // bytes at the end that may belong to a match
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::size_t complete = 0;
    possible = 0;
    for (Automaton& automaton : automata_) {
      while (automaton.state > 0 && text[i] != automaton.stop[automaton.state]) {
        automaton.state = automaton.failure[automaton.state];
      }
      if (text[i] == automaton.stop[automaton.state]) ++automaton.state;
      possible = std::max(possible, automaton.state);
      if (automaton.state == automaton.stop.size()) complete = std::max(complete, automaton.state);
    }
    if (complete > 0) {
      matched_ = true;
      held_.resize(before + i + 1 - complete);
      return std::exchange(held_, {});
    }
  }
  if (text.empty()) return {};
  std::string free = held_.substr(0, held_.size() - possible);
  held_.erase(0, held_.size() - possible);
  return free;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace switchyard::gateway
