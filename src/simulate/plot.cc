// Lanes of instances, and attainment over time and of each model, as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "simulate/picture.h"
#include "simulate/report.h"

namespace switchyard::simulate {
namespace {

constexpr double kLeft = 110;
constexpr double kWidth = 1080;
constexpr double kLane = 18;
constexpr double kCurve = 140;
constexpr double kBars = 90;
constexpr double kTop = 50;
constexpr double kFoot = 40;
constexpr std::size_t kMaxSegments = 60'000;
constexpr std::size_t kMaxNamedModels = 40;

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else if (c == '&') {
      result += "&amp;";
    } else {
      result += c;
    }
  }
  return result;
}

// Neighbouring models far apart in hue.
int hue(std::size_t model) { return static_cast<int>((model * 137 + 20) % 360); }

// Draws one picture with its top at `y_`, and grows the text.
class Drawing {
 public:
  Drawing(std::string& svg, const PoolPicture& picture, double top, double end)
      : svg_(svg), picture_(picture), y_(top), end_(end), scale_(kWidth / end) {}

  static double height(const PoolPicture& picture) {
    return kTop + static_cast<double>(picture.lanes.size()) * kLane + 40 + kCurve + kFoot +
           (picture.attainment_by_model.empty() ? 0 : kBars + kFoot);
  }

  void draw() {
    write("<text x=\"{:.0f}\" y=\"{:.1f}\" font-size=\"15\">{}</text>\n", kLeft, y_ + 22,
          escaped(picture_.title));
    write(
        "<text x=\"{:.0f}\" y=\"{:.1f}\" fill=\"#555\">one colour per model; thin: weights being loaded; "
        "pale: prefill</text>\n",
        kLeft, y_ + 38);
    y_ += kTop;
    lanes();
    y_ += static_cast<double>(picture_.lanes.size()) * kLane + 40;
    curve();
    y_ += kCurve + kFoot;
    if (!picture_.attainment_by_model.empty()) models();
  }

 private:
  template <class... Args>
  void write(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(svg_), format, std::forward<Args>(args)...);
  }

  void lanes() {
    for (std::size_t lane = 0; lane < picture_.lanes.size(); ++lane) {
      const double y = y_ + static_cast<double>(lane) * kLane;
      write(
          "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>"
          "<rect x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.0f}\" fill=\"#f2f2f2\"/>\n",
          kLeft - 8, y + 12, escaped(picture_.lanes[lane]), kLeft, y + 1, kWidth, kLane - 3);
    }
    for (const LaneSegment& bar : bars()) {
      const double y = y_ + bar.instance * kLane;
      const bool load = bar.kind == LaneKind::load;
      write(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" "
          "fill=\"hsl({},70%,{}%)\"><title>{} {:.2f}-{:.2f} s</title></rect>\n",
          kLeft + bar.begin * scale_, load ? y + kLane - 5 : y + 1,
          std::max(0.3, (bar.end - bar.begin) * scale_), load ? 3.0 : kLane - 6, hue(bar.model),
          bar.kind == LaneKind::prefill ? 78 : 50, escaped(picture_.models[bar.model]), bar.begin, bar.end);
    }
  }

  // Neighbours of one model and kind become one bar; the shortest bars go where there are too many.
  std::vector<LaneSegment> bars() const {
    std::vector<std::vector<LaneSegment>> rows(picture_.lanes.size() * 3);
    for (const LaneSegment& segment : picture_.segments) {
      if (segment.instance >= picture_.lanes.size() || segment.model >= picture_.models.size()) continue;
      auto& row = rows[segment.instance * 3 + static_cast<std::size_t>(segment.kind)];
      if (!row.empty() && row.back().model == segment.model &&
          segment.begin - row.back().end < 0.5 / scale_) {
        row.back().end = segment.end;
      } else {
        row.push_back(segment);
      }
    }
    std::vector<LaneSegment> bars;
    for (const auto& row : rows) bars.insert(bars.end(), row.begin(), row.end());
    if (bars.size() > kMaxSegments) {
      std::nth_element(bars.begin(), bars.begin() + kMaxSegments, bars.end(),
                       [](const auto& a, const auto& b) { return a.end - a.begin > b.end - b.begin; });
      bars.resize(kMaxSegments);
    }
    return bars;
  }

  void frame(std::string_view title, double height) {
    write("<text x=\"{:.0f}\" y=\"{:.1f}\">{}</text>\n", kLeft, y_ - 8, title);
    write(
        "<rect x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.0f}\" fill=\"none\" "
        "stroke=\"#999\"/>\n",
        kLeft, y_, kWidth, height);
    for (const double share : {0.5, 0.9, 1.0}) {
      const double y = y_ + height * (1 - share);
      write(
          "<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>"
          "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.0f} %</text>\n",
          kLeft, kLeft + kWidth, y, y, kLeft - 8, y + 4, share * 100);
    }
  }

  void curve() {
    frame("tokens in time, by the 10 s in which they were due", kCurve);
    std::string points;
    for (std::size_t i = 0; i < picture_.attainment_by_10s.size(); ++i) {
      const double x = std::min(end_, (static_cast<double>(i) + 0.5) * 10);
      points += fmt::format("{:.1f},{:.1f} ", kLeft + x * scale_,
                            y_ + kCurve * (1 - picture_.attainment_by_10s[i]));
    }
    write("<polyline points=\"{}\" fill=\"none\" stroke=\"#1664c0\" stroke-width=\"2\"/>\n", points);
    for (int tick = 0; tick <= 5; ++tick) {
      write("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.0f} s</text>\n",
            kLeft + kWidth * tick / 5, y_ + kCurve + 16, end_ * tick / 5);
    }
  }

  void models() {
    frame("tokens in time, by model", kBars);
    const std::size_t count = picture_.attainment_by_model.size();
    const double step = kWidth / static_cast<double>(count);
    for (std::size_t i = 0; i < count; ++i) {
      const double share = std::clamp(picture_.attainment_by_model[i], 0.0, 1.0);
      const double x = kLeft + step * static_cast<double>(i);
      const std::string name = i < picture_.models.size() ? escaped(picture_.models[i]) : "";
      write(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" "
          "fill=\"hsl({},70%,50%)\"><title>{} {:.1f} %</title></rect>\n",
          x + step * 0.1, y_ + kBars * (1 - share), step * 0.8, kBars * share, hue(i), name, share * 100);
      if (count <= kMaxNamedModels && i < picture_.models.size()) {
        // What fits under the bar; the whole name is the bar's title.
        const auto room = static_cast<std::size_t>(std::max(4.0, step / 6));
        write("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", x + step / 2,
              y_ + kBars + 16, escaped(picture_.models[i].substr(0, room)));
      }
    }
  }

  std::string& svg_;
  const PoolPicture& picture_;
  double y_;
  const double end_;
  const double scale_;
};

}  // namespace

std::string draw(std::span<const PoolPicture> pictures) {
  double end = 1;
  double height = 0;
  for (const PoolPicture& picture : pictures) {
    end = std::max(end, picture.seconds);
    height += Drawing::height(picture);
  }
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" "
      "fill=\"white\"/>\n",
      kLeft + kWidth + 30, height);
  double top = 0;
  for (const PoolPicture& picture : pictures) {
    Drawing(svg, picture, top, end).draw();
    top += Drawing::height(picture);
  }
  return svg + "</svg>\n";
}

PoolPicture picture_of(const SimulationInput& input, const SimulationResult& result) {
  const Cluster& cluster = input.cluster;
  PoolPicture picture;
  picture.title =
      fmt::format("{}: {} models, {} requests, {:.1f} % of tokens in time", schedule::to_string(input.policy),
                  input.models.size(), result.total.requests, 100 * result.attainment());
  picture.seconds = std::max(result.seconds, input.workload.seconds());
  std::uint32_t lanes = cluster.prefill + cluster.decode + cluster.unified;
  for (const LaneSegment& segment : result.lanes) lanes = std::max(lanes, segment.instance + 1);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    const char* role = lane < cluster.prefill                                      ? "prefill"
                       : lane < cluster.prefill + cluster.decode                   ? "decode"
                       : lane < cluster.prefill + cluster.decode + cluster.unified ? "unified"
                                                                                   : "restarted";
    picture.lanes.push_back(fmt::format("{} {}", role, lane));
  }
  for (const SimulatedModel& model : input.models) picture.models.push_back(model.spec.name);
  picture.segments = result.lanes;
  picture.attainment_by_10s = result.attainment_by_10s;
  picture.attainment_by_model = attainment_by_model(result);
  return picture;
}

std::string to_svg(const SimulationInput& input, const SimulationResult& result) {
  const PoolPicture picture = picture_of(input, result);
  return draw({&picture, 1});
}

}  // namespace switchyard::simulate
