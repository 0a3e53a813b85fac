// Splats of a pose in a canvas: projected and sorted here, blended by WebGL2, by the rules of kg4d/render/reference.py.

const EPS2D = 0.3, NEAR = 0.01, LEAST_ALPHA = 1 / 255, FLOATS = 8, BINS = 1 << 16, ROW = 1024; // splats in a row of the texture

const VERTEX = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D splats; // two texels each: centre and first axis; second axis and colour
uniform vec2 size;
out vec2 place;
out vec4 tint;
void main() { // six vertices a splat: as instances of four, each costs 40 microseconds without a GPU
  int splat = gl_VertexID / 6, turn = gl_VertexID % 6, at = turn < 3 ? turn : turn - 2;
  ivec2 texel = ivec2(2 * (splat % 1024), splat / 1024);
  uvec4 first = texelFetch(splats, texel, 0), second = texelFetch(splats, texel + ivec2(1, 0), 0);
  vec2 center = uintBitsToFloat(first.xy);
  vec4 axes = uintBitsToFloat(uvec4(first.zw, second.xy));
  vec4 color = vec4((uvec4(second.z) >> uvec4(0, 8, 16, 24)) & 255u) / 255.0;
  vec2 corner = vec2(at & 1, at >> 1) * 2.0 - 1.0;
  float reach = min(3.33, sqrt(2.0 * log(max(color.a * 255.0, 1.0))));
  place = corner * reach;
  tint = color;
  vec2 pixel = center + place.x * axes.xy + place.y * axes.zw;
  gl_Position = vec4(pixel.x / size.x * 2.0 - 1.0, 1.0 - pixel.y / size.y * 2.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
in vec4 tint;
out vec4 color;
void main() {
  float alpha = min(0.999, tint.a * exp(-0.5 * dot(place, place)));
  if (alpha < 1.0 / 255.0) discard;
  color = vec4(tint.rgb * alpha, alpha);
}`;

class Splats {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false, alpha: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer.");
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.size = gl.getUniformLocation(program, "size");
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.room = 0;
    this.bins = new Uint32Array(BINS);
  }

  _grow(count) {
    if (count <= this.room) return;
    count = Math.ceil(count / ROW) * ROW;
    this.room = count;
    this.gl.texImage2D(this.gl.TEXTURE_2D, 0, this.gl.RGBA32UI, 2 * ROW, count / ROW, 0, this.gl.RGBA_INTEGER, this.gl.UNSIGNED_INT, null);
    this.found = new Float32Array(count * FLOATS);
    this.depths = new Float32Array(count);
    this.foundWords = new Uint32Array(this.found.buffer);
    this.sortedWords = new Uint32Array(count * FLOATS);
    this.order = new Uint32Array(count);
  }

  // Draw a pose. `camera` is {rotation (9, row by row), translation, fx, fy, cx, cy} in pixels of the canvas;
  // `tint(i, direction, into)` puts the colour of a Gaussian into an array; background is an RGB colour in [0, 1].
  draw(pose, camera, tint, background) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!pose) return;
    this._grow(pose.count);
    const count = this._sort(this._project(pose, camera, tint));
    gl.uniform2f(this.size, canvas.width, canvas.height);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, 2 * ROW, Math.ceil(count / ROW), gl.RGBA_INTEGER, gl.UNSIGNED_INT, this.sortedWords);
    gl.drawArrays(gl.TRIANGLES, 0, 6 * count);
  }

  // Fill `found` and `depths` with the Gaussians that are seen, and return their number.
  _project(pose, camera, tint) {
    const { width, height } = this.canvas;
    const { rotation: R, translation: t, fx, fy, cx, cy } = camera;
    const eye = [0, 1, 2].map((k) => -(R[k] * t[0] + R[3 + k] * t[1] + R[6 + k] * t[2]));
    const { means, covariances, alphas } = pose;
    const marginX = (0.15 * width) / fx, marginY = (0.15 * height) / fy;
    const lowU = -cx / fx - marginX, highU = (width - cx) / fx + marginX;
    const lowV = -cy / fy - marginY, highV = (height - cy) / fy + marginY;
    const { found, foundWords, depths } = this;
    const color = [0, 0, 0], direction = [0, 0, 0];
    let n = 0;
    for (let i = 0; i < pose.count; i++) {
      const alpha = alphas[i];
      if (alpha < LEAST_ALPHA) continue;
      const X = means[3 * i], Y = means[3 * i + 1], Z = means[3 * i + 2];
      const z = R[6] * X + R[7] * Y + R[8] * Z + t[2];
      if (!(z >= NEAR)) continue;
      let u = (R[0] * X + R[1] * Y + R[2] * Z + t[0]) / z, v = (R[3] * X + R[4] * Y + R[5] * Z + t[1]) / z;
      const px = fx * u + cx, py = fy * v + cy;
      u = Math.min(Math.max(u, lowU), highU);
      v = Math.min(Math.max(v, lowV), highV);
      // J W: what carries a small step in the world to one in the image
      const a = fx / z, b = fy / z;
      const g0 = a * (R[0] - u * R[6]), g1 = a * (R[1] - u * R[7]), g2 = a * (R[2] - u * R[8]);
      const h0 = b * (R[3] - v * R[6]), h1 = b * (R[4] - v * R[7]), h2 = b * (R[5] - v * R[8]);
      const c = 6 * i;
      const s0 = covariances[c], s1 = covariances[c + 1], s2 = covariances[c + 2];
      const s3 = covariances[c + 3], s4 = covariances[c + 4], s5 = covariances[c + 5];
      const k0 = s0 * g0 + s1 * g1 + s2 * g2, k1 = s1 * g0 + s3 * g1 + s4 * g2, k2 = s2 * g0 + s4 * g1 + s5 * g2;
      const xx = g0 * k0 + g1 * k1 + g2 * k2 + EPS2D;
      const xy = h0 * k0 + h1 * k1 + h2 * k2;
      const yy = h0 * (s0 * h0 + s1 * h1 + s2 * h2) + h1 * (s1 * h0 + s3 * h1 + s4 * h2) + h2 * (s2 * h0 + s4 * h1 + s5 * h2) + EPS2D;
      const middle = (xx + yy) / 2, spread = Math.sqrt(((xx - yy) / 2) ** 2 + xy * xy);
      const long = Math.sqrt(middle + spread), short = Math.sqrt(Math.max(middle - spread, 0.01));
      if (px + 3.4 * long < 0 || px - 3.4 * long > width || py + 3.4 * long < 0 || py - 3.4 * long > height) continue;
      const angle = 0.5 * Math.atan2(2 * xy, xx - yy), cos = Math.cos(angle), sin = Math.sin(angle);
      const o = n * FLOATS;
      found[o] = px; found[o + 1] = py;
      found[o + 2] = long * cos; found[o + 3] = long * sin;
      found[o + 4] = -short * sin; found[o + 5] = short * cos;
      direction[0] = X - eye[0]; direction[1] = Y - eye[1]; direction[2] = Z - eye[2];
      tint(i, direction, color);
      foundWords[o + 6] = byte(color[0]) | (byte(color[1]) << 8) | (byte(color[2]) << 16) | (byte(alpha) << 24);
      depths[n++] = z;
    }
    return n;
  }

  // Copy what was found to `sortedWords`, far ones first, by a counting sort of their depths.
  _sort(n) {
    const { depths, bins, order, foundWords, sortedWords } = this;
    let near = Infinity, far = 0;
    for (let i = 0; i < n; i++) { near = Math.min(near, depths[i]); far = Math.max(far, depths[i]); }
    const scale = far > near ? (BINS - 1) / (far - near) : 0;
    bins.fill(0);
    for (let i = 0; i < n; i++) bins[((far - depths[i]) * scale) | 0]++;
    for (let bin = 0, sum = 0; bin < BINS; bin++) { const here = bins[bin]; bins[bin] = sum; sum += here; }
    for (let i = 0; i < n; i++) order[bins[((far - depths[i]) * scale) | 0]++] = i;
    for (let i = 0; i < n; i++) {
      const source = order[i] * FLOATS, target = i * FLOATS;
      for (let k = 0; k < FLOATS; k++) sortedWords[target + k] = foundWords[source + k];
    }
    return n;
  }
}

function byte(value) { return value <= 0 ? 0 : value >= 1 ? 255 : (value * 255 + 0.5) | 0; }
